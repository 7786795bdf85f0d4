"""Stores on fsspec: local, AFS, HDFS, WebHDFS; atomic, verified writes."""
