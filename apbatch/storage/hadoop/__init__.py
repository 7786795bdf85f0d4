"""HDFS as a store, by its own protocol and over HTTP."""
