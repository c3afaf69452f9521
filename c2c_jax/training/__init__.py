"""Training of translators on embedding stores."""
