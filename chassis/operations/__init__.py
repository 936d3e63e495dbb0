"""What an operator can see and repair in a service, over HTTP and on the command line."""
