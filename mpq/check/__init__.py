"""Takes plans, artifacts and limits, and gives verdicts for CI. No torch."""
