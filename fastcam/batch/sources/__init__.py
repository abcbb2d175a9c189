"""Where pictures of a batch come from: folders, manifests, Parquet, tar shards; on this machine or by fsspec."""
