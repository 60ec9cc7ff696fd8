"""Rows: how they are prepared, and how training reads them in an order that can be resumed.

Preparing (`raymdm prepare`): `sources` (raw rows) -> `work` (what a Ray task does with them, by
`encoding` and `tokenizer`) -> `pipeline` and `writer` (the folder) -> `manifest`.
Reading: `files` -> `fragment` (a part of a file that is read alone) -> `scan` and `indexing` (all
rows checked, once a run) -> `rows`; which of them when: `order`, `mixture`; how they reach a
worker: `stream`, `collate`, `batching`. `jsonl` and `evaluation` read the held-out splits.

Doors: `raymdm.data.manifest.read_manifest`, `raymdm.data.encoding.load_encoder`.
Nothing is imported here: reading a manifest needs neither Ray nor a tokenizer.
"""
