"""raymdm: train masked diffusion language models on Ray, with noise that is measured.

Doors: `raymdm.models.load_model`, `raymdm.diffusion.make_estimator`, `raymdm.decoding.generate`,
`raymdm.tasks.get_task`, `raymdm.verdict.compare`; on the command line, `raymdm --help`.
"""

__version__ = "0.1.0"
