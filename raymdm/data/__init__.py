"""Rows: how they are prepared, and how training reads them in an order that can be resumed.

Preparing (`raymdm prepare`): `sources` (raw rows) -> `work` (what a Ray task does with them, by
`encoding` and `tokenizer`) -> `pipeline` and `writer` (the folder) -> `manifest`.
Reading: `jsonl` (checked rows by number), `order`, `stream`, `collate`, `batching`, `evaluation`
(items).

Doors: `raymdm.data.manifest.read_manifest`, `raymdm.data.encoding.load_encoder`.
Nothing is imported here: reading a manifest needs neither Ray nor a tokenizer.
"""
