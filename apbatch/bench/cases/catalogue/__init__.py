"""The index suite: catalogues beside bare drivers, rescans beside `find`, events beside DuckDB."""
