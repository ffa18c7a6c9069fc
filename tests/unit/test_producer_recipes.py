"""The recipes in docs/ do what they say: their own code is written out and run."""

import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

FLASK = """
from sqlalchemy.orm import Session
from converge_producer import Intent, InvalidIntent
from shop.app import Base, app, engine
from shop.notify import notify, producer

def sent():
    found = [intent["key"] for intent in producer.sent]
    producer.sent.clear()
    return found

def intent(key):
    return Intent("cust-42", "orders", "Hello", key=key)

Base.metadata.create_all(engine)
web = app.test_client()
assert web.post("/orders", data={"email": "ada@example.com"}).status_code == 201
assert producer.sent[0]["sender"] == "store"
assert sent() == ["order-1-confirmed"]

# A bad intent shows before the commit, which undoes the order with it.
assert web.post("/orders", data={"email": "no address"}).status_code == 500
assert sent() == []
assert web.post("/orders", data={"email": "ada@example.com"}).json == {"order": 2}
assert sent() == ["order-2-confirmed"]

with Session(engine) as session:
    notify(session, intent("rolled-back"))
    session.rollback()
    notify(session, intent("kept"))
    with session.begin_nested():
        notify(session, intent("in-savepoint"))
        assert sent() == []
    undone = session.begin_nested()
    notify(session, intent("undone"))
    with session.begin_nested():
        notify(session, intent("undone-too"))
    undone.rollback()
    assert sent() == []
    session.commit()
    assert sent() == ["kept", "in-savepoint"]
    session.commit()
    assert sent() == []
print("done")
"""

DJANGO = """
import logging
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.db"}},
    INSTALLED_APPS=["shop"], ROOT_URLCONF="urls", SECRET_KEY="test", ALLOWED_HOSTS=["testserver"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
import django
django.setup()
from django.db import connection, transaction
from django.test import Client
from converge_producer import Intent, InvalidIntent
from shop.models import Order
from shop.notify import notify, producer
with connection.schema_editor() as editor:
    editor.create_model(Order)

def sent():
    found = [intent["key"] for intent in producer.sent]
    producer.sent.clear()
    return found

web = Client(raise_request_exception=False)
logging.disable()
assert web.post("/orders", {"email": "ada@example.com"}).status_code == 201
assert sent() == ["order-1-confirmed"]
assert web.post("/orders", {"email": "no address"}).status_code == 500
assert sent() == []
assert Order.objects.count() == 1
try:
    with transaction.atomic():
        notify(Intent("cust-42", "orders", "Hello", key="undone"))
        raise KeyError
except KeyError:
    assert sent() == []
with transaction.atomic():
    notify(Intent("cust-42", "orders", "Hello", key="kept"))
    assert sent() == []
assert sent() == ["kept"]
print("done")
"""


def write_out(recipe: Path, folder: Path) -> None:
    blocks = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", recipe.read_text(), re.DOTALL)
    assert len(blocks) == 2
    for name, code in blocks:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)


def run(script: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=folder,
        env={**os.environ, "CONVERGE_URL": "memory://"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr


def test_the_flask_recipe_enqueues_after_commit_alone(tmp_path: Path) -> None:
    write_out(DOCS / "flask.md", tmp_path)
    run(FLASK, tmp_path)


def test_the_django_recipe_enqueues_after_commit_alone(tmp_path: Path) -> None:
    write_out(DOCS / "django.md", tmp_path)
    (tmp_path / "shop" / "models.py").write_text(
        "from django.db import models\n\n\nclass Order(models.Model):\n"
        "    email = models.TextField()\n"
    )
    (tmp_path / "urls.py").write_text(
        "from django.urls import path\nfrom shop.views import create_order\n"
        'urlpatterns = [path("orders", create_order)]\n'
    )
    run(DJANGO, tmp_path)
