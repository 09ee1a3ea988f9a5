"""The networks: vision transformer, context and target encoder, predictor, and the model of them."""
