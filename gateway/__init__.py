"""The one HTTP door: public paths in, the services' answers out."""
