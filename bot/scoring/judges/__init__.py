"""The judges: each reads a reply and says what it is. Pure; each is measured itself (`bot.scoring.agreement`)."""
