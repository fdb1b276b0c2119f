# The targets, of what pentimento_INCLUDE, pentimento_SHARED, pentimento_STATIC and, on Windows, pentimento_IMPORT name.
# Included by the package's configuration and by ../CMakeLists.txt, which builds from source.
if(WIN32)
    set(_pentimento_system windows)
elseif(APPLE)
    set(_pentimento_system apple)
else()
    set(_pentimento_system linux)
endif()
file(STRINGS "${CMAKE_CURRENT_LIST_DIR}/system-libraries.txt" _pentimento_system REGEX "^${_pentimento_system} ")
string(REPLACE " " ";" _pentimento_system "${_pentimento_system}")
list(REMOVE_AT _pentimento_system 0)

if(NOT TARGET pentimento::pentimento)
    add_library(pentimento::pentimento SHARED IMPORTED GLOBAL)
    set_target_properties(pentimento::pentimento PROPERTIES
        IMPORTED_LOCATION "${pentimento_SHARED}"
        INTERFACE_INCLUDE_DIRECTORIES "${pentimento_INCLUDE}")
    if(WIN32)
        set_target_properties(pentimento::pentimento PROPERTIES IMPORTED_IMPLIB "${pentimento_IMPORT}")
    endif()
    add_library(pentimento::static STATIC IMPORTED GLOBAL)
    set_target_properties(pentimento::static PROPERTIES
        IMPORTED_LOCATION "${pentimento_STATIC}"
        INTERFACE_INCLUDE_DIRECTORIES "${pentimento_INCLUDE}"
        INTERFACE_LINK_LIBRARIES "${_pentimento_system}")
endif()
