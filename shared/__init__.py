"""The spine of Jangkau: contracts, and the one way each service reads, stores and publishes."""
