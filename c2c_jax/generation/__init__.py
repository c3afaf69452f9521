"""From one CLAP vector to sound: AudioLDM and sound files."""
