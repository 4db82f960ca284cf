"""The loop: configuration, runner, checkpoints, telemetry."""
