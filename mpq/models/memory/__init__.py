"""Where weights live while they are not used: offloaded, mapped from files, or freed. It knows no file format of models and no layers."""
