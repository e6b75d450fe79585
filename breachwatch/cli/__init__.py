"""Commands: translate, call app, render. No decisions."""
