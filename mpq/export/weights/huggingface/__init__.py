"""A folder for Transformers and a model hub: the artifact as it is, and what people and programs need beside it."""
