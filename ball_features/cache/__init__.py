"""The cache: embeddings of images with their provenance, in one HDF5 file."""

from ball_features.cache.attributes import LABELLING, LISTING, MOST_SHARDS, SHARD
from ball_features.cache.equal import equal_embeddings, equal_remark
from ball_features.cache.lock import lock_cache
from ball_features.cache.merge import Merged, merge
from ball_features.cache.read import read_cache
from ball_features.cache.remote import forget, local_copy, written
from ball_features.cache.row_reads import read_rows
from ball_features.cache.schema import SCHEMA_VERSION, Cache, choose_channels, labelled_rows
from ball_features.cache.verify import Verification, verify_cache
from ball_features.cache.write import CacheContents, CacheWriter, create_cache

__all__ = [
    "LABELLING",
    "LISTING",
    "MOST_SHARDS",
    "SCHEMA_VERSION",
    "SHARD",
    "Cache",
    "CacheContents",
    "CacheWriter",
    "Merged",
    "Verification",
    "choose_channels",
    "create_cache",
    "equal_embeddings",
    "equal_remark",
    "forget",
    "labelled_rows",
    "local_copy",
    "lock_cache",
    "merge",
    "read_cache",
    "read_rows",
    "verify_cache",
    "written",
]
