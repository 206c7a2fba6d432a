"""A folder for Transformers and a model hub: the unchanged artifact, and the additional files that people and programs need."""
