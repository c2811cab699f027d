"""Steps without I/O: what a use of a key needs from AWS is a value, and somebody else makes the call.

Work with keys is a generator. It yields a request, is sent the answer or has the refusal thrown into it,
and returns its result::

    def fetch(clients: KmsClients) -> Steps[bytes]:
        answer = yield KmsRequest("eu-central-1", "Decrypt", {"KeyId": …, …}, via=clients)
        return plaintext_of(answer, …)

    run(fetch(clients))                     # with boto3
    await arun(fetch(clients), call)        # with an asynchronous client
    run(fetch(clients), answers)            # in a test: without any client

What is asked, in which order, after which refusal another Region, and what is believed of an answer is
decided in the generators, once for both ways of calling.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar

from phicrypt.core.deadlines import Course, GiveUp, ask_guarded, course_of_this_thread, to_the_end
from phicrypt.core.materials import KeyHolder

if TYPE_CHECKING:
    from phicrypt.core.breaker import Breakers
    from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials, Keyring

T = TypeVar("T")
Shell = TypeVar("Shell", bound=Callable[..., Any])


class Caller(Protocol):
    """Who makes the calls of a request, with boto3 and its own clients.

    Attributes:
        deadline_seconds: how long a use waits whose first call goes here; see :mod:`phicrypt.core.deadlines`.
        breakers: of the endpoints that are asked under these credentials; see :mod:`phicrypt.core.breaker`.
    """

    deadline_seconds: float
    breakers: Breakers

    def ask(self, request: Any) -> Any:
        """The answer; raises the refusal."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class AwsRequest(KeyHolder):
    """One call of AWS that is to be made. Its ``repr`` shows no parameter: contexts and keys stand there.

    Attributes:
        region: of the endpoint; None for that of the client.
        operation: AWS's name, such as ``"GenerateDataKey"``.
        parameters: boto3's.
        via: whose clients and credentials are meant; not compared.
    """

    service: ClassVar[str]

    region: str | None
    operation: str
    parameters: Mapping[str, Any]
    via: Caller | None = field(default=None, compare=False)

    @property
    def key_arn(self) -> str | None:
        """What is asked, for errors: a KMS key, or a key store's table."""
        raise NotImplementedError

    @property
    def described(self) -> str:
        """The call, for errors."""
        raise NotImplementedError

    @property
    def is_write(self) -> bool:
        """Whether it changes what is stored, so that its outcome has to be waited for."""
        return False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.operation} in {self.region}>"


class KmsRequest(AwsRequest):
    """A call of KMS; the answer is a :class:`~phicrypt.core.kms_calls.KmsAnswer`, the refusal a KeyAccessError."""

    __slots__ = ()

    service = "KMS"

    @property
    def key_arn(self) -> str | None:
        named: str | None = self.parameters.get("KeyId") or self.parameters.get("DestinationKeyId")
        return named

    @property
    def described(self) -> str:
        return f"{self.operation} with KMS key {self.key_arn or 'of the client'}"


class TableRequest(AwsRequest):
    """A call of DynamoDB for a branch key store's table; the answer is boto3's response."""

    __slots__ = ()

    service = "DynamoDB"

    @property
    def key_arn(self) -> str | None:
        named: str | None = self.parameters.get("TableName")
        return named

    @property
    def described(self) -> str:
        return f"{self.operation} of the branch key store's table"

    @property
    def is_write(self) -> bool:
        return self.operation == "TransactWriteItems"


class LocalRequest:
    """What is answered on this machine, and may take its time: a driver waits in its own way."""

    __slots__ = ()

    def answer(self) -> Any:
        """The answer, for a thread that may be blocked."""
        raise NotImplementedError

    async def answer_async(self) -> Any:
        """The answer, without blocking the event loop."""
        raise NotImplementedError


class Leading(LocalRequest):
    """Says that these steps lead a load that others wait for. It has no answer.

    Args:
        give_up: told when the caller of these steps waits no longer, from the caller's thread: with the error
            for those who wait for the load, or None where the caller was interrupted.
    """

    __slots__ = ("give_up",)

    def __init__(self, give_up: GiveUp) -> None:
        self.give_up = give_up

    def answer(self) -> None:
        pass

    async def answer_async(self) -> None:
        pass


class Pause(LocalRequest):
    """Time that passes before something is asked again."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def answer(self) -> None:
        time.sleep(self.seconds)

    async def answer_async(self) -> None:
        import asyncio

        await asyncio.sleep(self.seconds)


class BlockingCall(LocalRequest):
    """Somebody else's code that knows no steps, such as the ``on_encrypt`` of a user's own keyring."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function

    def answer(self) -> Any:
        return self._function()

    async def answer_async(self) -> Any:
        import asyncio

        return await asyncio.to_thread(self._function)


Request: TypeAlias = AwsRequest | LocalRequest
Steps: TypeAlias = Generator[Request, Any, T]


def ask(request: AwsRequest) -> Any:
    """Make the call of a request with boto3, through the clients that it names.

    Raises KeyAccessError, at once where their endpoint is left alone (:mod:`phicrypt.core.breaker`).
    """
    if request.via is None:
        raise ValueError(f"{request!r} names nobody who could call AWS")
    return ask_guarded(request)


def asked(request: AwsRequest) -> Steps[Any]:
    """One call of AWS, as steps: ``run(asked(request))`` waits no longer than the deadline."""
    return (yield request)


def run(steps: Steps[T], call: Callable[[Any], Any] = ask) -> T:
    """``run(keyring.encrypt_steps(materials))``: the result of the steps; ``call`` gives each answer.

    A refusal that ``call`` raises is thrown into the steps, which may go on in another Region. Raises what
    the steps raise. With boto3 (no ``call``) it waits no longer than the deadline of who is asked first, see
    :mod:`phicrypt.core.deadlines`, and raises KeyAccessError then.
    """
    if call is not ask:
        return to_the_end(_drive(steps, partial(_answered_by, call)))
    give_ups: list[GiveUp] = []
    course: Course | None = None  # made when it is needed: keyrings that ask nobody come through here as well

    def lead(give_up: GiveUp) -> None:
        if course is None:
            give_ups.append(give_up)
        else:
            course.lead(give_up)

    async def answer_to(request: Request) -> Any:
        nonlocal course
        if isinstance(request, LocalRequest):
            return request.answer()
        if course is None:
            course = course_of_this_thread(give_ups)
        return await course.answer(request)

    driven = _drive(steps, answer_to, lead)
    try:
        driven.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    except BaseException:
        driven.close()
        raise
    assert course is not None
    return course.finish(driven)


async def _answered_by(call: Callable[[Any], Any], request: Request) -> Any:
    return request.answer() if isinstance(request, LocalRequest) else call(request)


async def arun(steps: Steps[T], call: Callable[[Any], Awaitable[Any]]) -> T:
    """``await arun(keyring.encrypt_steps(materials), call)``: as :func:`run`, with a ``call`` that is awaited."""

    async def answer_to(request: Request) -> Any:
        return await (request.answer_async() if isinstance(request, LocalRequest) else call(request))

    return await _drive(steps, answer_to)


async def _drive(
    steps: Steps[T],
    answer_to: Callable[[Request], Coroutine[Any, Any, Any]],
    lead: Callable[[GiveUp], object] | None = None,
) -> T:
    answer: Any = None
    refusal: Exception | None = None
    try:
        while True:
            request = steps.send(answer) if refusal is None else steps.throw(refusal)
            answer = refusal = None
            if lead is not None and type(request) is Leading:
                lead(request.give_up)
                continue
            try:
                answer = await answer_to(request)
            except Exception as error:  # noqa: BLE001  (the steps judge it)
                refusal = error
            # Told outside of the except clause, so that what the steps raise has no context of ours.
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        # An error's traceback holds this frame: no answer with a key may stand in it, and no circle.
        answer = refusal = None
        steps.close()


class KeyringBase(KeyHolder):
    """What most keyrings have in common; see :class:`phicrypt.core.materials.Keyring`."""

    __slots__ = ()

    _identity: Hashable

    @property
    def identity(self) -> Hashable:
        return self._identity

    @property
    def caches_data_keys(self) -> bool:
        return True

    @property
    def binds_context_locally(self) -> bool:
        """Whether the encryption context stays in this process, shown to no KMS and in no CloudTrail (rule 35).

        Where it is False, required pairs are judged by the guard like all others.
        """
        return False

    def prepare(self, encrypted_data_keys: Sequence[EncryptedDataKey]) -> None:
        pass


def shell_of(steps: str) -> Callable[[Shell], Shell]:
    """Marks a method that runs the steps of another one, named from its object, as in ``"store.fetch"``."""

    def mark(method: Shell) -> Shell:
        vars(method)["shell_of"] = steps
        return method

    return mark


class SteppedKeyring(KeyringBase):
    """A keyring whose work is steps; these are its synchronous shells.

    See :class:`phicrypt.core.materials.Keyring` for what they mean.
    """

    __slots__ = ()

    def encrypt_steps(self, materials: EncryptionMaterials) -> Steps[EncryptionMaterials]:
        """:meth:`on_encrypt`, as steps."""
        raise NotImplementedError

    def decrypt_steps(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> Steps[DecryptionMaterials]:
        """:meth:`on_decrypt`, as steps."""
        raise NotImplementedError

    @shell_of("encrypt_steps")
    def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        return run(self.encrypt_steps(materials))

    @shell_of("decrypt_steps")
    def on_decrypt(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> DecryptionMaterials:
        return run(self.decrypt_steps(materials, encrypted_data_keys))


def encrypt_steps(keyring: Keyring, materials: EncryptionMaterials) -> Steps[EncryptionMaterials]:
    """The keyring's steps, or one blocking step where it has none."""
    return steps_of(keyring, "on_encrypt", materials)


def decrypt_steps(
    keyring: Keyring, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
) -> Steps[DecryptionMaterials]:
    """The keyring's steps, or one blocking step where it has none."""
    return steps_of(keyring, "on_decrypt", materials, encrypted_data_keys)


def steps_of(worker: object, method: str, *arguments: Any) -> Steps[Any]:
    """The steps behind a method that is the shell of some, else the method as one blocking step.

    Somebody's subclass that overrides the method, or an object that stands around another, is thus called
    by the method itself.
    """
    shell = getattr(worker, method)
    steps = getattr(shell, "shell_of", None)
    # Of the worker itself: it may have lent a method of the object that it stands around.
    if steps is not None and getattr(shell, "__self__", None) is worker:
        found: Steps[Any] = attrgetter(steps)(worker)(*arguments)
        return found
    return _blocking(partial(shell, *arguments))


def _blocking(function: Callable[[], Any]) -> Steps[Any]:
    return (yield BlockingCall(function))
