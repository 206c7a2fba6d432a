"""Where weights are kept while they are not used: offloaded, mapped from files, or freed. It does not know model file formats or layers."""
