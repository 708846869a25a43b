"""A broker that lets nobody in without a token: logins are redirected to the service that knows
passwords, and what has no good token is dropped without a word."""

from majordomus import Action, Broker, Discard, Forward, HookRequest, Redirect, StatusError


class Doorkeeper(Broker):
    async def on_request(self, request: HookRequest) -> Action:
        if request.service == "login":
            return Redirect("accounts.login")
        if request.service.startswith("accounts."):
            return Discard()  # the way in is "login"
        if not request.token:
            return Discard()
        try:  # the broker goes on with other requests meanwhile
            user = await self.call("accounts.whose", request.token, timeout=1.0)
        except StatusError:
            return Discard()
        request.user = user.text
        return Forward()


if __name__ == "__main__":
    Doorkeeper(bind="tcp://127.0.0.1:5555").run()
