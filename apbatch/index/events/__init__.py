"""Events of all experiments: a store of their own beside the catalogue of files, one interface, several back-ends."""
