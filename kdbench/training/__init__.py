"""The lockstep engine: lanes that share batches and one teacher."""
