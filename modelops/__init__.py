"""What an alarm starts: data, training, the gate, the registry and the rollout of a better model."""
