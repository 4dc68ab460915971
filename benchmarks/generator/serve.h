/* The server that costs next to nothing: what a generator reaches at it is the generator's own. */

#ifndef SERVE_H
#define SERVE_H

#include <stdint.h>
#include <stdnoreturn.h>

/* Serve the script's sessions on 127.0.0.1 until the process is ended. */
noreturn void serve(const char *script, uint16_t port);

#endif
