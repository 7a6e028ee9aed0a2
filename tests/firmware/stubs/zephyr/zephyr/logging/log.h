/* STUB: Zephyr's log on the standard output. */
#include <stdio.h>
#define LOG_MODULE_REGISTER(name) extern int name##_is_a_module
#define LOG_ERR(...) (printf("error "), printf(__VA_ARGS__), printf("\n"))
#define LOG_WRN(...) (printf("warning "), printf(__VA_ARGS__), printf("\n"))
