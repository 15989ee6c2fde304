"""What bodies are said to be: the media types that are told apart."""

from functools import lru_cache

JSON = frozenset({"", "application/json", "text/json"})
LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})
CLOUD_EVENT, CLOUD_EVENTS = "application/cloudevents+json", "application/cloudevents-batch+json"


@lru_cache(64)
def media_type(content_type: str) -> str:
    """The media type of a `Content-Type`, in lower case, without its parameters."""
    return content_type.partition(";")[0].strip().lower()
