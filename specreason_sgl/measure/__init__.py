"""What things cost: calls, methods and frames of the view, measured."""
