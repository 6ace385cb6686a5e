"""The collapsed normal hierarchy of HBM: its density with gradients, its effects drawn back, sites that it knows and new ones."""
