"""What an account is, whoever asks and wherever it is kept."""
