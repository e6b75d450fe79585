"""Ways out. To add one: a file here and a line below."""

from __future__ import annotations

from types import MappingProxyType

from breachwatch.model import Channel
from breachwatch.notify.channels.chat import ChatChannel
from breachwatch.notify.channels.email import SmtpChannel, SmtpSettings
from breachwatch.notify.channels.sms import SmsGatewayChannel, SmsSettings

CHANNELS = MappingProxyType(
    {
        Channel.EMAIL: SmtpChannel,
        Channel.SMS: SmsGatewayChannel,
        Channel.CHAT: ChatChannel,
    }
)

__all__ = ["CHANNELS", "ChatChannel", "SmsGatewayChannel", "SmsSettings", "SmtpChannel", "SmtpSettings"]
