"""What each customer will probably do: orders and spend of the next 90 days, and how well that is known."""
