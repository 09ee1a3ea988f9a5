"""plinth: the training platform. It never imports the model it trains."""
