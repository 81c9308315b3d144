"""Problems to try methods on: data, model, losses and metrics of each."""
