"""The whole loop on one machine: a model in service, driftwatch beside it, modelops behind it; and what drifts.

It starts the commands of both services as anybody would and talks to them over HTTP: it imports neither.
"""
