"""The application that `celery -A workers` runs."""

import os
import sys
import warnings

from celery.platforms import SecurityWarning

from config.running import running_settings
from config.settings import SettingsError
from workers import signals
from workers.application import make_app

try:
    settings = running_settings()
except SettingsError as error:
    sys.exit(str(error))
os.environ.update(settings.environment())  # tasks and Flower's configuration read it again
# Celery warns root of pickled messages; we accept JSON alone.
warnings.filterwarnings("ignore", category=SecurityWarning)
app = make_app(settings)
signals.connect(settings)
