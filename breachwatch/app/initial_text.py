"""The words of the configuration that `breachwatch init` writes. docs/configuration.md lists every setting."""

HEAD = """\
# BreachWatch configuration, written by `breachwatch init` for this host.
#
# `breachwatch doctor` says what is still missing; docs/configuration.md lists every setting with its default.
# The environment overrides this file: BREACHWATCH_SMTP__HOST=… sets smtp.host.
# Secrets do not belong here. Put each into a file of its own in the folder `secrets` beside this file
# (smtp__password, sms__token, elasticsearch__api_key), or hand them over as systemd credentials.

[state]
# Everything BreachWatch remembers. Back it up; only the service's account may enter it.
directory = {state}

[host]
# How this host is called in events and notices.
name = {name}

# What is watched: found on this host. Paths may hold * and **. tz is the zone of lines that name none.
"""

FOOT = """\
[playbooks]
# What happens when an incident opens: vietnam-pdpl, eu-gdpr, or one of your own from playbooks.directories.
# Not legal advice: have a lawyer read the playbook before you rely on it.
use = []

# FILL IN: the mail server that pages and notices leave through. Its password: file smtp__password.
[smtp]
host = ""
port = 587
tls = "starttls"
user = ""
sender = ""

# For people without e-mail: a gateway that takes JSON over HTTPS. Its token: file sms__token.
# [sms]
# url = "https://gateway.example/v1/messages"

# A chat room, as an apprise address (Telegram, Slack, Teams, webhook, …) in a file of its own: it holds a token.
# [[chat]]
# name = "security-room"
# url_file = "/etc/breachwatch/secrets/chat-security-room"

# FILL IN: who is paged, and who approves. Whoever asks for a notice cannot approve it: at least two people with the
# roles that the playbook names (dpo, ciso). os_user is the account that types the command.
# [[team.people]]
# name = "linh"
# email = "linh@company.example"
# phone = "+84900000000"
# chat = "security-room"
# roles = ["analyst"]
# os_user = "linh"
# language = "vi"
#
# The groups that the shipped playbooks page:
# [team.groups]
# security = ["linh"]
# management = ["quang"]

# FILL IN: who writes the notices. Authorities refuse notices without these facts, customers cannot check them.
[letterhead]
name = ""
address = ""
registration = ""
tax_code = ""
hotline = ""
email = ""
website = ""
privacy_contact = ""
signatory = ""
# A page where a customer can check that a message is real:
verify_url = ""

# FILL IN: where notices to authorities go. Ask the authority for its address, and test it.
# [authorities.vn-mps-pdp]
# name = "Ministry of Public Security, A05"
# email = "…"
# language = "vi"

# FILL IN: the customers, from a CSV file (id,name,email,phone,language) or any database.
# [audiences.customers]
# csv = "/srv/shop/customers.csv"
# or: url_file = "/etc/breachwatch/secrets/customers-db" and
# query = "SELECT id, name, email, phone, language FROM customers"

# Telemetry of a fleet. A single host misses nothing without it. Its key: file elasticsearch__api_key.
# [elasticsearch]
# url = "https://elastic.example:9200"
"""
