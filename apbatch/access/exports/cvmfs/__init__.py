"""Export as a CernVM-FS repository: catalogs and signatures are written here, contents stay where they are."""
