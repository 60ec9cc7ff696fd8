"""What an evaluation is made of, from a subject and its items to the pages that people look at.

Doors for the pages: `viewer` (a trace -> one page per item), `report` (the figures of an evaluation
-> `report.html`).
"""
