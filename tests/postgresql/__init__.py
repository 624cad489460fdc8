"""What only PostgreSQL can do wrong: several writers, several workers, a server that goes away."""
