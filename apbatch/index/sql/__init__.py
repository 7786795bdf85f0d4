"""The catalogue in SQL: what SQLite and PostgreSQL share. Names in statements are ours; values are always bound."""
