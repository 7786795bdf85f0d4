"""The catalogue in Cassandra: tables for questions (`schema.cql`), plans of partitions, what is left tested by row."""
