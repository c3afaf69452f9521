"""Evaluation of translators.

`evaluate.evaluate` reads top to bottom: `inputs` (with `pairs`, `training_store`) are encoded as `vectors`; `methods`
translate these; `tasks` scores every method, by `retrieval` with the scorings of `scoring`, by `gaps` and `geometry`,
and beside the `oracle` and `chance`; `generated` scores sounds. All give `rows`, which `results` writes, as `tables` as
well, and `report` shows on a page. `calibration` estimates the means that centre vectors.
"""
