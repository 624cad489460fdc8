"""What tests of several rooms share: servers, prepared stores, temporary books, senders, stand-in APIs."""
