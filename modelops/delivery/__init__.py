"""Delivers the prediction log to driftwatch over HTTP or Kafka, where it does not read the file itself."""
