"""The log of live events: one contract, over Redis Streams and over Kafka."""
