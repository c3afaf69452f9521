"""Evaluation of translators.

`evaluate.evaluate` reads from top to bottom. It finds `pairs`, the `training_store` and `generated` sounds, encodes
them as `vectors`, and builds the `methods`: the translator and its baselines. `tasks` scores each method, with
`retrieval` (by the `scoring`s), `geometry` and `bootstrap` intervals. `results` holds the rows, tables and files, which
`report` shows on a page. `calibration` estimates the means that centre vectors.
"""
