"""Stores: local, AFS, HDFS, WebHDFS; atomic, verified writes."""
