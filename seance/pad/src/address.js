// The address of the document, from the address of the page.
//
// The page is served at the share link: /c/ROOM, with or without a base path in front and the name of a
// document at the end. y-websocket needs the same address with ws instead of http. At /c/ROOM/status the
// relay reports whether the host is connected.

/**
 * @param {Location | URL} location
 * @return {{ base: string, name: string, params: Object<string, string>, link: string, status: string }}
 */
export const addressFrom = (location) => {
  const [, room, name] = /^(.*?\/c\/[^/]+)\/?(.*)$/.exec(location.pathname) ?? [null, location.pathname, ""]
  const scheme = location.protocol === "https:" ? "wss:" : "ws:"
  return {
    base: `${scheme}//${location.host}${room}`,
    name: name || "pad",
    params: Object.fromEntries(new URLSearchParams(location.search)),
    status: `${location.origin}${room}/status${location.search}`,
    link: `${location.origin}${location.pathname}${location.search}`,
  }
}
