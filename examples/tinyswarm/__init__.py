"""A swarm trained from scratch on two cores: corpus, design, model, trainer, table."""
